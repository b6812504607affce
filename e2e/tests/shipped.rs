//! What `make build` leaves runs on any distribution's host: no interpreter, no library, no symbols.

#![cfg(test)]

use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object};
use weft_e2e::binaries;

#[test]
fn weft_cni_is_static_and_stripped() {
    is_static_and_stripped("weft-cni");
}

#[test]
fn weft_ipam_is_static_and_stripped() {
    is_static_and_stripped("weft-ipam");
}

#[test]
fn weft_sidecar_is_static_and_stripped() {
    is_static_and_stripped("weft-sidecar");
}

/// The contract's number for the plugin that is read from disk at every ADD.
#[test]
fn weft_cni_fits_into_two_mebibytes() {
    let size = binaries::weft("weft-cni").unwrap().metadata().unwrap().len();
    assert!(size <= 2 << 20, "{size} bytes");
}

fn is_static_and_stripped(name: &str) {
    let bytes = std::fs::read(binaries::weft(name).unwrap()).unwrap();
    let header = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
    let endian = header.endian().unwrap();
    let segments = header.program_headers(endian, &*bytes).unwrap();
    assert!(
        !segments.iter().any(|segment| segment.p_type(endian) == PT_INTERP),
        "{name} needs a dynamic linker"
    );
    let file = object::File::parse(&*bytes).unwrap();
    assert_eq!(file.symbols().count(), 0, "{name} has its symbols");
}
