//! DNS cookies (RFC 7873, RFC 9018): who has shown that it is there is not taken for one who has not.
