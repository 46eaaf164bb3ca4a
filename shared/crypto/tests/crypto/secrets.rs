//! What the secret types must not be able to do, checked by the compiler.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use keyway_crypto::{Key256, SecretBytes};
use zeroize::ZeroizeOnDrop;

/// `Probe::<T>::NAME` is true if `T` implements the trait: the inherent constant exists only then,
/// and hides the one of `Absent`, which every type has.
struct Probe<T>(PhantomData<T>);

trait Absent {
    const DEBUG: bool = false;
    const DISPLAY: bool = false;
    const CLONE: bool = false;
    const PARTIAL_EQ: bool = false;
    const SERIALIZE: bool = false;
    const DEREF: bool = false;
    const AS_REF: bool = false;
}
impl<T> Absent for Probe<T> {}

impl<T: Debug> Probe<T> {
    const DEBUG: bool = true;
}
impl<T: Display> Probe<T> {
    const DISPLAY: bool = true;
}
impl<T: Clone> Probe<T> {
    const CLONE: bool = true;
}
impl<T: PartialEq> Probe<T> {
    const PARTIAL_EQ: bool = true;
}
impl<T: serde::Serialize> Probe<T> {
    const SERIALIZE: bool = true;
}
impl<T: std::ops::Deref> Probe<T> {
    const DEREF: bool = true;
}
impl<T: AsRef<[u8]>> Probe<T> {
    const AS_REF: bool = true;
}

macro_rules! implements_none_of_them {
    ($type:ty) => {
        const _: () = assert!(
            !Probe::<$type>::DEBUG
                && !Probe::<$type>::DISPLAY
                && !Probe::<$type>::CLONE
                && !Probe::<$type>::PARTIAL_EQ
                && !Probe::<$type>::SERIALIZE
                && !Probe::<$type>::DEREF
                && !Probe::<$type>::AS_REF
        );
    };
}

implements_none_of_them!(SecretBytes);
implements_none_of_them!(Key256);

// The probe itself sees the traits of a type that has them all.
const _: () = assert!(
    Probe::<String>::DEBUG
        && Probe::<String>::DISPLAY
        && Probe::<String>::CLONE
        && Probe::<String>::PARTIAL_EQ
        && Probe::<String>::SERIALIZE
        && Probe::<String>::DEREF
        && Probe::<String>::AS_REF
);

#[test]
fn secrets_are_wiped_on_drop_and_usable_from_any_thread() {
    fn wiped<T: ZeroizeOnDrop + Send + Sync>() {}
    wiped::<SecretBytes>();
    wiped::<Key256>();
}

#[test]
fn secret_keeps_the_allocation_it_was_given() {
    let bytes = vec![1, 2, 3];
    let address = bytes.as_ptr();
    let secret = SecretBytes::from(bytes);
    assert_eq!(secret.expose().as_ptr(), address, "no copy is left behind");

    let key = Key256::from([7; 32]);
    let address = key.expose().as_ptr();
    let moved = Box::new(key);
    assert_eq!(
        moved.expose().as_ptr(),
        address,
        "a move copies no key bytes"
    );
}
