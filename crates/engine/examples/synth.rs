//! Writes a GGUF of random weights: `cargo run -p watchpost-engine --example synth -- NAME OUT.gguf`, where NAME is a
//! real model's shape (for measuring speed) or a small model of one architecture (for tests); without arguments, the
//! names. `tiny FOLDER` writes every small model into a folder, `headers FOLDER` what stands before the
//! weights of the least ones, to begin fuzzing with.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

#[path = "../synth/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod synth;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let small = || synth::tiny::NAMES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}-mixed")]);
    match arguments.as_slice() {
        [kind, folder] if kind == "tiny" => small()
            .try_for_each(|name| write(synth::tiny::model(&name), &Path::new(folder).join(name + ".gguf"))),
        [kind, folder] if kind == "headers" => synth::tiny::NAMES.iter().try_for_each(|name| {
            let model = synth::tiny::least(name).ok_or("every name has a model")?;
            Ok(std::fs::write(Path::new(folder).join(name), model.header())?)
        }),
        [name, path] => write(synth::real::model(name).or_else(|| synth::tiny::model(name)), Path::new(path)),
        _ => {
            synth::real::NAMES.iter().for_each(|name| println!("{name}"));
            small().for_each(|name| println!("{name}"));
            Ok(())
        }
    }
}

fn write(model: Option<synth::Gguf>, path: &Path) -> Result<(), Box<dyn Error>> {
    let model = model.ok_or("no model of this name: without arguments, the names are listed")?;
    let mut file = BufWriter::new(File::create(path)?);
    model.write(&mut file)?;
    file.flush()?;
    Ok(())
}
