DATABASE_URL=… SERVER_KEYS_FILE=… CONTROL_PASSWORD_FILE=/root/control-password \
  python -m registry_service.admission.reconciler.fill --broker 1 --control-username mooring \
  --to /var/lib/mosquitto/dynamic-security.json --owner mosquitto
curl -X PATCH $GATEWAY_URL/api/v1/brokers/1 \
  -H "Authorization: Bearer $ADMIN_TOKEN" -H "Content-Type: application/json" \
  -d '{"management": "mosquitto", "username": "mooring", "password": "<the same>"}'
