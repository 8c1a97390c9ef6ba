"""The API's bodies: what a request may hold and how an answer looks, as the OpenAPI document says it."""
