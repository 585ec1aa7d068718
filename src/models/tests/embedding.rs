use super::*;
use crate::models::embed::{self, Embedded, embed};
use crate::models::{ModelError, Resolved};
use std::fs;

fn embed_into(place: &Place, program: &str, name: &str, force: bool) -> Result<Embedded, ModelError> {
    let path = place.write(&format!("{name}.gguf"), &tiny::gguf(name));
    let model: Resolved = place.registry().resolve(path.to_str().unwrap()).unwrap();
    embed(&place.path(program), &model, &place.path("full"), force, &mut |_, _| ())
}

#[test]
fn an_executable_carries_a_model_byte_for_byte_on_a_page_of_its_own() {
    let place = Place::new();
    let written = embed_into(&place, "program", "one", false).unwrap();
    let found = embed::find(&place.path("full")).unwrap().unwrap();
    assert_eq!(found, written);
    assert_eq!((found.name.as_str(), found.source.offset % 65_536), ("one", 0));
    let (full, program) = (fs::read(place.path("full")).unwrap(), fs::read(place.path("program")).unwrap());
    let range = found.source.offset as usize..(found.source.offset + found.source.len) as usize;
    assert_eq!(full[range], tiny::gguf("one"));
    assert_eq!(full[..program.len()], program);
    assert_eq!(found.sha256, found.source.sha256().unwrap());
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(place.path("full")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(embed::find(&place.path("program")).unwrap(), None);
}

#[test]
fn a_model_that_is_carried_already_is_replaced_and_not_stacked() {
    let place = Place::new();
    embed_into(&place, "program", "one", false).unwrap();
    let first = fs::metadata(place.path("full")).unwrap().len();
    let exists = embed_into(&place, "full", "two", false).unwrap_err();
    assert!(matches!(exists, ModelError::Exists { .. }), "{exists}");
    embed_into(&place, "full", "two", true).unwrap();
    assert_eq!(embed::find(&place.path("full")).unwrap().unwrap().name, "two");
    assert_eq!(fs::metadata(place.path("full")).unwrap().len(), first);
}

#[test]
fn every_damaged_byte_of_the_footer_is_an_error() {
    let place = Place::new();
    embed_into(&place, "program", "one", false).unwrap();
    let whole = fs::read(place.path("full")).unwrap();
    for at in whole.len() - 240..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let error = embed::find(&place.write("damaged", &bytes)).unwrap_err();
        assert!(matches!(error, ModelError::Executable { .. }), "byte {at}: {error}");
    }
}

#[test]
fn a_footer_that_was_moved_is_an_error() {
    let place = Place::new();
    embed_into(&place, "program", "one", false).unwrap();
    let whole = fs::read(place.path("full")).unwrap();
    let footer = &whole[whole.len() - 256..];
    for bytes in
        [footer.to_vec(), [&whole[1..whole.len() - 256], footer].concat(), [&whole[..], footer].concat()]
    {
        let error = embed::find(&place.write("moved", &bytes)).unwrap_err();
        assert!(error.to_string().contains("its length is not what it was"), "{error}");
    }
}

#[test]
fn a_copy_cut_short_is_an_error_and_not_a_program_without_model() {
    let place = Place::new();
    // A header that says its table of sections, 2 entries of 64 bytes, ends the file of 5,000 bytes.
    let mut elf = vec![0; 5_000];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[40..48].copy_from_slice(&(5_000u64 - 128).to_le_bytes());
    elf[58..62].copy_from_slice(&[64, 0, 2, 0]);
    place.write("elf", &elf);
    assert_eq!(embed::find(&place.path("elf")).unwrap(), None);
    embed_into(&place, "elf", "one", false).unwrap();
    let whole = fs::read(place.path("full")).unwrap();
    for len in [whole.len() - 1, whole.len() - 300, 6_000, 5_016] {
        let error = embed::find(&place.write("cut", &whole[..len])).unwrap_err();
        assert!(error.to_string().contains("its end is missing"), "{len}: {error}");
    }
}

#[test]
fn a_model_that_is_not_what_was_recorded_is_not_embedded() {
    let place = Place::new();
    place.write("models/one.gguf", &tiny::gguf("one"));
    place.write("models/one.gguf.sha256", format!("{}  one.gguf\n", "0".repeat(64)).as_bytes());
    let model = place.registry().resolve("one").unwrap();
    let error =
        embed(&place.path("program"), &model, &place.path("full"), false, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ModelError::WrongHash { .. }), "{error}");
    assert_eq!(names(place.folder.path()), ["models", "program"]);
}

#[test]
fn a_long_name_is_cut_between_characters() {
    let place = Place::new();
    let name = "é".repeat(100);
    embed_into(&place, "program", &name, false).unwrap();
    assert_eq!(embed::find(&place.path("full")).unwrap().unwrap().name, "é".repeat(72));
}
