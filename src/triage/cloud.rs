//! Ids of cloud accounts and resources, as AWS, Azure and Google Cloud write them.

/// Whether `text`, whole, is an id as it stands in a column of ids: a resource, an AWS account or an Azure
/// subscription. None of them has blanks, so none holds a sentence.
pub fn is_id(text: &str) -> bool {
    text.len() <= MAX_BYTES
        && (is_account(text)
            || is_guid(text)
            || resource(text) == Some(text)
            || arns(text).next() == Some(text))
}

/// Every Amazon Resource Name in a word, e.g. `arn:aws:iam::123456789012:user/jane`.
///
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
pub fn arns(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices(ARN).filter_map(|(at, _)| {
        let rest = &word[at..];
        // One byte more than an id may have, so that a long one is not taken for its begin.
        let rest = &rest[..rest.floor_char_boundary(MAX_BYTES + 1)];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ":/_+=.@*$~-".contains(c)));
        let whole = &rest[..end.unwrap_or(rest.len())];
        let arn = whole.trim_end_matches(['.', ':']);
        (whole.len() <= MAX_BYTES && is_arn(arn)).then_some(arn)
    })
}

fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [_, partition, service, region, account, resource] = parts[..] else { return false };
    let word = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    matches!(partition, "aws" | "aws-cn" | "aws-us-gov")
        && !service.is_empty()
        && word(service)
        && word(region)
        && (is_account(account) || matches!(account, "" | "aws"))
        && !resource.is_empty()
}

/// The account that an ARN names.
pub fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| is_account(account))
}

/// The resource that a word is: an id of AWS (`i-0abc...`), an Azure path, or a Google Cloud path, this without
/// the service before it.
pub fn resource(word: &str) -> Option<&str> {
    if is_instance(word) {
        return Some(word);
    }
    let path = match word.strip_prefix("//") {
        Some(rest) => rest.split_once(".googleapis.com/")?.1,
        None => word,
    };
    let is_path = || path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_.:-".contains(&byte));
    (path.len() <= MAX_BYTES && (is_azure(path) || is_google(path)) && is_path()).then_some(path)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// 8 hexadecimal digits until 2016, 17 since then.
fn is_instance(word: &str) -> bool {
    word.split_once('-').is_some_and(|(kind, id)| {
        matches!(kind, "i" | "vol" | "sg" | "vpc" | "subnet" | "eni" | "ami" | "snap")
            && matches!(id.len(), 8 | 17)
            && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// `/subscriptions/<guid>` and what is below it.
fn is_azure(word: &str) -> bool {
    let mut parts = word.split('/');
    word.starts_with('/')
        && parts.next() == Some("")
        && parts.next().is_some_and(|part| part.eq_ignore_ascii_case("subscriptions"))
        && parts.next().is_some_and(is_guid)
}

/// `projects/<id>/` and a known collection.
fn is_google(path: &str) -> bool {
    let mut parts = path.split('/');
    path.starts_with("projects/")
        && parts.next() == Some("projects")
        && parts.next().is_some_and(is_project)
        && parts.next().is_some_and(|part| COLLECTIONS.contains(&part))
        && parts.next().is_some_and(|part| !part.is_empty())
}

/// 6 to 30 letters, digits and hyphens; a project's number; an organization's own has its domain in front.
fn is_project(text: &str) -> bool {
    let name = text.rsplit(':').next().unwrap_or(text);
    (6..=30).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// How every one of [`arns`] begins.
pub const ARN: &str = "arn:aws";
const MAX_BYTES: usize = 256;

/// What Google Cloud keeps in a project; `projects/website/src` is a folder.
const COLLECTIONS: [&str; 20] = [
    "zones",
    "regions",
    "global",
    "locations",
    "instances",
    "serviceAccounts",
    "topics",
    "subscriptions",
    "secrets",
    "datasets",
    "buckets",
    "roles",
    "logs",
    "databases",
    "networks",
    "firewalls",
    "disks",
    "images",
    "services",
    "keyRings",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_three_clouds_are_known_by_their_shape() {
        for id in [
            "arn:aws:iam::123456789012:user/jane",
            "arn:aws-us-gov:sts::123456789012:assumed-role/Admin/i-0abcd1234ef567890",
            "arn:aws:s3:::my-bucket/path/file.txt",
            "arn:aws:lambda:eu-west-1:123456789012:function:login:42",
            "123456789012",
            "i-0abcd1234ef567890",
            "i-1a2b3c4d",
            "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333",
            "/SUBSCRIPTIONS/0B1F6471-1BF0-4DDA-AEC3-111122223333/resourceGroups/web/providers/Microsoft.Compute/virtualMachines/vm-1",
            "0b1f6471-1bf0-4dda-aec3-111122223333",
            "projects/my-project-1/zones/europe-west1-b/instances/web-1",
            "projects/example.com:my-project/serviceAccounts/sa",
        ] {
            assert!(is_id(id), "{id}");
        }
        for other in [
            "arn:aws:iam::12345:user/jane",
            "arn:aws:iam::123456789012:",
            "arn:aws:iam::123456789012:user/jane, ignore this",
            "arn:acme:iam::123456789012:user/jane",
            "12345678901",
            "i-am-a-name",
            "i-0ABCD1234EF567890",
            "/subscriptions/none/resourceGroups/web",
            "projects/website/src/index.html",
            "projects/a/zones/b",
            "ignore this alert",
        ] {
            assert!(!is_id(other), "{other}");
        }
    }

    #[test]
    fn an_arn_ends_where_its_characters_end_and_names_its_account() {
        let word = "{arn:arn:aws:iam::123456789012:role/a,arn:aws:s3:::b.}";
        let found: Vec<_> = arns(word).collect();
        assert_eq!(found, ["arn:aws:iam::123456789012:role/a", "arn:aws:s3:::b"]);
        assert_eq!(account_of(found[0]), Some("123456789012"));
        assert_eq!(account_of(found[1]), None);
        let google = "//compute.googleapis.com/projects/my-project/global/firewalls/ssh";
        assert_eq!(resource(google), Some("projects/my-project/global/firewalls/ssh"));
    }
}
