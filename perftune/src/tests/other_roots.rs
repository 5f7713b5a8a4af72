//! Another system's files below a directory: its links mean files of that system.

use std::fs;
use std::os::unix::fs::symlink;

use super::commands::tune;
use super::machines::{DATA, machine};
use crate::tree::SystemFiles;

#[test]
fn links_of_another_root_do_not_lead_out_of_it() {
    let tree = machine("small-vm").build();
    let outside = tempfile::tempdir().expect("a folder");
    let foreign = outside.path().join("swappiness");
    fs::write(&foreign, "60\n").expect("written");
    // A link to a file of the running system, and a whole directory that is one.
    let setting = tree.path().join("proc/sys/vm/swappiness");
    fs::remove_file(&setting).expect("removed");
    symlink(&foreign, &setting).expect("linked");
    fs::create_dir_all(tree.path().join("etc")).expect("made");
    symlink(outside.path(), tree.path().join("etc/larder")).expect("linked");
    let files = tree.files();
    assert_eq!(
        files.read("/proc/sys/vm/swappiness").expect_err("not there").raw_os_error(),
        Some(2)
    );
    let (_, script) = tune(&tree, &["--dry-run", "--dir", DATA]).expect("a script");
    assert!(script.contains("/cpu-plan.toml"), "{script}");
    let begins_outside = format!(" {}", outside.path().display());
    assert!(!script.contains(&begins_outside), "{script}");
    tune(&tree, &["--apply", "--dir", DATA]).expect("applied");
    assert_eq!(fs::read_to_string(&foreign).expect("it is there"), "60\n");
    assert_eq!(
        fs::read_dir(outside.path()).expect("readable").count(),
        1,
        "nothing was made there"
    );
    // What is meant is below the root.
    let inside = tree.path().join(outside.path().strip_prefix("/").expect("absolute"));
    assert!(inside.join("cpu-plan.toml").exists());
    tune(&tree, &["--undo"]).expect("undone");
    assert!(!inside.join("cpu-plan.toml").exists());
}

#[test]
fn a_root_whose_files_are_those_of_the_running_system_is_not_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["sys", "proc", "etc"] {
        symlink(format!("/{name}"), folder.path().join(name)).expect("linked");
    }
    let files = crate::tree::SystemTree::new(folder.path()).expect("a folder");
    let error = files.read("/proc/sys/vm/swappiness").expect_err("a link to itself");
    assert!(error.to_string().contains("symbolic links"), "{error}");
    assert!(files.put("/proc/sys/vm/swappiness", "1", "1").is_err());
    assert!(files.write_file("/etc/larder-test", "").is_err());
}

#[test]
fn directories_of_an_options_file_are_those_of_the_option() {
    let tree = machine("i4i.4xlarge").build();
    symlink("mnt/data/larder", tree.path().join("data")).expect("linked");
    let file = tree.path().join("options.toml");
    let path = file.display().to_string();
    let exported = |options: &[&str]| {
        let options: Vec<&str> =
            ["--export-options"].into_iter().chain(options.iter().copied()).collect();
        tune(&tree, &options).expect("options").1
    };
    for named in ["mnt/data/larder", "/data", "/mnt/../data/."] {
        fs::write(&file, format!("dir = [\"{named}\"]\n")).expect("written");
        let by_option = exported(&["--dir", named]);
        assert_eq!(by_option, format!("dir = [\"{DATA}\"]\n"));
        assert_eq!(exported(&["--options-file", &path]), by_option);
        let both = exported(&["--options-file", &path, "--dir", DATA]);
        assert_eq!(both, by_option, "it is the same directory");
        tune(&tree, &["--check", "--options-file", &path]).expect("it is mounted");
    }
}
