"""Who is asking? Bearer tokens of our own, JWTs of an OpenID Connect issuer, and the scopes that they carry."""
