curl -X PATCH $GATEWAY_URL/api/v1/brokers/1 \
  -H "Authorization: Bearer $ADMIN_TOKEN" -H "Content-Type: application/json" \
  -d '{"management": "rabbitmq", "management_url": "https://rabbitmq.example.com:15671",
       "username": "mooring", "password": "<its password>"}'
