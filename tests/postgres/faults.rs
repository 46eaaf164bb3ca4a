//! Lost answers, cut and frozen links, crashes, standbys, and what is refused at the start.
