//! SigV4 verification against AWS's own test suite, AWS's signer, another verifier and hostile input.

#[cfg(test)]
mod accepted;

#[cfg(test)]
mod clients;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod hostile;

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod refused;

#[cfg(test)]
mod second_verifier;
#[cfg(test)]
mod signer;

#[cfg(test)]
mod signing_keys;

#[cfg(test)]
mod suite;
