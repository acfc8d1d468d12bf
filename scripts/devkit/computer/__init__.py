"""What this computer is told about the VPN's names: plans, which are pure, and what carries them out."""
