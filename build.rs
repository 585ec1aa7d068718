//! Where the linked libduckdb.so is found at run time. The shipped binary (feature `bundled-duckdb`)
//! carries DuckDB inside and needs none of this.

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if std::env::var_os("CARGO_FEATURE_BUNDLED_DUCKDB").is_some() {
        return;
    }
    let Some(dir) = std::env::var_os("DUCKDB_LIB_DIR") else { return };
    // `.deps/duckdb` is a link out of the clone: the binary works on when the clone is gone.
    let dir = std::fs::canonicalize(&dir).unwrap_or_else(|_| dir.into());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", dir.display());
}
