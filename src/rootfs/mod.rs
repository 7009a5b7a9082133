//! A step's file tree: layers applied to directories, stacked by overlayfs, and what changed read back.
