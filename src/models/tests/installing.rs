use super::*;
use crate::models::install::{Verdict, import, recorded, verify};
use crate::models::{ModelError, known};
use std::fs;
use watchpost_engine::{LoadError, Source};

fn import_here(
    place: &Place,
    path: &Path,
    name: Option<&str>,
) -> Result<crate::models::install::Imported, ModelError> {
    import(path, name, &place.models(), &mut |_, _| ())
}

#[test]
fn an_imported_model_is_copied_whole_with_its_hash_recorded() {
    let place = Place::new();
    let path = place.write("download/Tiny One.gguf", &tiny::gguf("tiny"));
    let mut last = (0, 0);
    let imported = import(&path, Some("tiny"), &place.models(), &mut |done, all| last = (done, all)).unwrap();
    assert_eq!(names(&place.models()), ["tiny.gguf", "tiny.gguf.sha256"]);
    assert_eq!(fs::read(&imported.path).unwrap(), fs::read(&path).unwrap());
    let hash = Source::file(&path).unwrap().sha256().unwrap();
    let record = fs::read_to_string(place.models().join("tiny.gguf.sha256")).unwrap();
    assert_eq!(record, format!("{hash}  tiny.gguf\n"), "in the format of sha256sum");
    assert_eq!((imported.sha256.as_str(), imported.is_known), (hash.as_str(), false));
    let all = 2 * fs::metadata(&path).unwrap().len();
    assert_eq!(last, (all, all));
}

#[test]
fn a_file_that_is_no_model_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let whole = tiny::gguf("tiny");
    let text = import_here(&place, &place.write("a.gguf", b"<html>not found</html>"), None).unwrap_err();
    assert!(matches!(text, ModelError::Load(LoadError::NotGguf { .. })), "{text}");
    let cut = import_here(&place, &place.write("b.gguf", &whole[..whole.len() - 1]), None).unwrap_err();
    assert!(matches!(cut, ModelError::Load(LoadError::Truncated { .. })), "{cut}");
    let gone = import_here(&place, &place.path("c.gguf"), None).unwrap_err();
    assert!(gone.to_string().contains("c.gguf"), "{gone}");
    assert!(names(&place.models()).is_empty());
}

#[test]
fn a_model_without_one_of_its_tensors_is_refused_by_the_tensors_name() {
    let place = Place::new();
    let mut bytes = tiny::gguf("tiny");
    let name = b"blk.0.attn_q";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + name.len() - 1] = b'x';
    let error = import_here(&place, &place.write("a.gguf", &bytes), None).unwrap_err();
    assert!(error.to_string().contains("no tensor `blk.0.attn_q.weight`"), "{error}");
    assert!(names(&place.models()).is_empty());
}

#[test]
fn a_file_that_claims_a_known_name_must_be_that_model() {
    let place = Place::new();
    let known = &known::all()[0];
    let short = place.write(&known.file, &tiny::gguf("tiny"));
    let error = import_here(&place, &short, None).unwrap_err();
    assert!(matches!(error, ModelError::WrongSize { .. }), "{error}");
    let error =
        import_here(&place, &place.write("other.gguf", &tiny::gguf("tiny")), Some(&known.name)).unwrap_err();
    assert!(matches!(error, ModelError::WrongSize { .. }), "{error}");

    let mut same_length = tiny::gguf("tiny");
    same_length.resize(known.bytes as usize, 0);
    let error = import_here(&place, &place.write(&known.file, &same_length), None).unwrap_err();
    let ModelError::WrongHash { expected, by, .. } = &error else { panic!("{error}") };
    assert_eq!((Some(expected.clone()), by.as_str()), (known.sha256.clone(), "models.toml"));
    assert!(names(&place.models()).is_empty());
}

#[test]
fn the_same_model_may_be_imported_twice_and_another_never_replaces_it() {
    let place = Place::new();
    let (one, two) =
        (place.write("one.gguf", &tiny::gguf("one")), place.write("two.gguf", &tiny::gguf("two")));
    import_here(&place, &one, Some("m")).unwrap();
    let again = import_here(&place, &one, Some("m")).unwrap();
    let error = import_here(&place, &two, Some("m")).unwrap_err();
    assert!(matches!(error, ModelError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&again.path).unwrap(), fs::read(&one).unwrap());
    // A file somebody copied there by hand only gets its record.
    let by_hand = place.write("models/hand.gguf", &tiny::gguf("hand"));
    assert_eq!(import_here(&place, &by_hand, None).unwrap().path, by_hand);
    assert_eq!(names(&place.models()), ["hand.gguf", "hand.gguf.sha256", "m.gguf", "m.gguf.sha256"]);
}

#[test]
fn a_name_cannot_leave_the_folder() {
    let place = Place::new();
    let path = place.write("one.gguf", &tiny::gguf("one"));
    for name in ["../up", "/etc/x", "a/b", ".hidden", "", "a\nb", "a b", "\u{1b}[2J"] {
        let error = import_here(&place, &path, Some(name)).unwrap_err();
        assert!(matches!(error, ModelError::Name { .. }), "{name:?}: {error}");
    }
    assert_eq!(names(place.folder.path()), ["one.gguf", "program"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_what_to_do() {
    let place = Place::new();
    let path = place.write("one.gguf", &tiny::gguf("one"));
    // Nobody, not even root, makes files there.
    let error = import(&path, None, Path::new("/sys/kernel"), &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ModelError::Write { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("/sys/kernel") && text.contains("a user who may write there"), "{text}");
}

#[test]
fn verify_finds_one_flipped_byte() {
    let place = Place::new();
    let path = place.write("one.gguf", &tiny::gguf("one"));
    let imported = import_here(&place, &path, None).unwrap();
    let model = place.registry().resolve("one").unwrap();
    assert!(matches!(verify(&model, &mut |_, _| ()), Verdict::Good { .. }));
    let mut bytes = fs::read(&imported.path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&imported.path, bytes).unwrap();
    let Verdict::Bad(error @ ModelError::WrongHash { .. }) = verify(&model, &mut |_, _| ()) else {
        panic!("the flipped byte was not found")
    };
    assert!(error.to_string().contains(&imported.sha256), "{error}");
}

#[test]
fn a_model_without_record_is_not_called_good_and_a_broken_record_is_named() {
    let place = Place::new();
    let path = place.write("models/hand.gguf", &tiny::gguf("hand"));
    let model = place.registry().resolve("hand").unwrap();
    assert_eq!(model.sha256, None);
    assert!(matches!(verify(&model, &mut |_, _| ()), Verdict::Unrecorded { .. }));
    place.write("models/hand.gguf.sha256", b"0123  hand.gguf\n");
    assert!(matches!(recorded(&path), Err(ModelError::Record { .. })));
    assert!(matches!(verify(&model, &mut |_, _| ()), Verdict::Bad(ModelError::Record { .. })));
}
