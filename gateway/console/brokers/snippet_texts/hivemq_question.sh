curl -s https://mooring.example.com:4003/emqx/authenticate \
  -H "Authorization: Bearer mbs_…" -H "Content-Type: application/json" \
  -d '{"username": "device_abc", "password": "…", "clientid": "mqttjs_1"}'
