//! The pure machine: its decisions case by case, in a grid of crashes, and as a fingerprint.

mod cases;
mod fingerprint;
mod grid;
mod judge;
mod search;
mod stored;
mod tables;
mod world;
