"""The OpenAPI document of everything that is served over HTTP."""
