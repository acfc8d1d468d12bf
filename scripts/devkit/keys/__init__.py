"""Keys and certificates: what they are, with no knowledge of files or of a VPN."""
