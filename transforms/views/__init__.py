"""What models want to see of a window: profiles, pictures, log-mels and channel orders."""
