//! Configuration from environment variables.
