"""What boots: imported images, their layers and the rootfs made of them."""
