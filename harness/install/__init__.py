"""Making base images: unattended installs and foreign disks, over console and SSH."""
