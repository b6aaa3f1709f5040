//! Changes come from those who may make them, and nobody locks the others out of the admin server.
