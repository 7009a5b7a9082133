extern "C" {
    fn getuid() -> u32;
}

fn main() {
    // SAFETY: takes nothing and cannot fail.
    println!("hello from {}", unsafe { getuid() });
}
