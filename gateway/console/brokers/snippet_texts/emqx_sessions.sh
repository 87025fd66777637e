curl -X PATCH $GATEWAY_URL/api/v1/brokers/1 \
  -H "Authorization: Bearer $ADMIN_TOKEN" -H "Content-Type: application/json" \
  -d '{"management": "emqx", "management_url": "https://emqx.example.com:18083",
       "username": "<API key>", "password": "<its secret>"}'
