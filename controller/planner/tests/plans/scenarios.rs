//! Stories in `tests/scenarios`: a world above `---`, the plan below. `UPDATE_SCENARIOS=1` writes the plans anew.

use std::path::Path;

use crate::show::{difference, show};
use crate::text::{NOW, parse};

const LINE: &str = "\n---\n";

#[test]
fn every_story_ends_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} stories were found", paths.len());
    let rewrite = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut faults = String::new();
    for path in paths {
        let story = std::fs::read_to_string(&path).unwrap();
        let (world, expected) = story.split_once(LINE).unwrap_or((story.trim_end(), ""));
        let (policy, snapshot) = parse(world);
        let plan = planner::plan(&policy, &snapshot);
        assert_eq!(planner::check(&policy, &snapshot, &plan), Ok(()), "{}", path.display());
        let found = show(&plan, NOW);
        if found == expected {
            continue;
        }
        if rewrite {
            std::fs::write(&path, format!("{world}{LINE}{found}")).unwrap();
        } else {
            faults += &format!("{}\n{}\n", path.display(), difference(expected, &found));
        }
    }
    assert!(faults.is_empty(), "the plans differ (- as written, + as planned):\n{faults}");
}
