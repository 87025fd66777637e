"""QR codes for devices' installers, as SVG within a page."""

import msgspec
import segno
from markupsafe import Markup


def installer_code(address: str, provisioning_key: str) -> Markup:
    """A QR code (ISO/IEC 18004) whose text is JSON: where a device registers, and with which key.

    `address` is that of the gateway.
    """
    text = msgspec.json.encode(
        {"url": f"{address}/api/v1/device/register", "provisioningKey": provisioning_key}
    ).decode()
    code = segno.make_qr(text, error="m")
    # The library writes numbers only: the text is nowhere in the SVG.
    return Markup(  # noqa: S704
        code.svg_inline(omitsize=True, svgclass="qr", lineclass=None, dark="#000", light="#fff")
    )
