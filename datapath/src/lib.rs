//! Weft's one door to the kernel: network namespaces, rtnetlink, nftables, sysctl
