//! Address ranges, leases and their stores, and the weft-ipam CNI plugin
