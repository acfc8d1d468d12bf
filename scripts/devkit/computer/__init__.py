"""What this computer is told about the VPN: its names, and its CA for HTTPS. Pure plans, and what carries them out."""
