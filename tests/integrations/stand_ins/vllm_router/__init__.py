"""A stand-in for production-stack's router: our own words for what integrations rely on."""
