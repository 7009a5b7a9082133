//! What an image's files amount to: by layer, by directory, and what ships for nothing.

use super::VertexId;

/// The files of one image, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Lowest first; the layers of a base together.
    pub layers: Vec<LayerContents>,
    /// Directories of the final image, none inside another one, the largest first.
    pub directories: Vec<(String, u64)>,
    /// Files of lower layers that later ones hide, by the two steps, the most bytes first.
    pub covered: Vec<Covered>,
    /// Regular files of the final image, a file with several names once.
    pub files: u64,
    /// Layers whose files are not on this machine, or may not be read.
    pub unread: usize,
}

/// What one step adds to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerContents {
    /// The step's full line.
    pub made_by: String,
    pub vertex: VertexId,
    pub is_base: bool,
    /// The layer itself, with everything in it that is large enough to be seen.
    pub tree: SizeNode,
}

/// A directory or a file by its size. What is too small to be told apart is one node, whose name is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeNode {
    /// Relative to the node above; several components where nothing else is between.
    pub name: String,
    pub bytes: u64,
    /// The largest first.
    pub children: Vec<SizeNode>,
}

/// Bytes that are in a layer and not in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Which step's layer holds them.
    pub made_by: String,
    /// Whether that is a base image, which nobody here can change.
    pub is_of_base: bool,
    /// The step that hides them.
    pub by: String,
    /// Whether the files are gone; otherwise other ones, or the same with another mode or owner, are in their place.
    pub is_deleted: bool,
    /// The file, or the directory that all of them are in.
    pub path: String,
    pub files: u64,
    pub bytes: u64,
}
