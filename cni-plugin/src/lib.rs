//! The Weft CNI plugin
