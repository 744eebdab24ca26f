"""`make screenshots`: the pictures of RabbitMQ's management UI in docs/rabbitmq-ui.md, taken of a real one."""
