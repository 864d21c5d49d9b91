"""QEMU: the q35 machine under KVM or TCG."""
