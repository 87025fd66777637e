"""What devices do and what is refused to them: counts over time, and the timeline of each device.

Processes count in memory and write in the background. No answer to a device waits for that.
"""
