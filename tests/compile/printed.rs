//! Random worlds as files mean what they were made of: so a failure that is printed, or kept as a case, is the one that was met.

use std::fs;

use proptest::prelude::*;

use porin::config::Loader;

use crate::probes::Probes;
use crate::reference;
use crate::told;
use crate::world::{self, World};
use crate::worlds::{self, Draft};

proptest! {
    #![proptest_config(crate::worlds::cases(64))]

    #[test]
    fn worlds_are_read_back_from_files(
        draft in worlds::draft().prop_map(worlds::loadable),
        seed: u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in told::files(&draft) {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let loaded = Loader::new(vec![directory.path().to_owned()]).load();
        let Some(config) = loaded.config else {
            return Err(TestCaseError::fail(format!("{}{}", told::world(&draft), loaded.report)));
        };
        let read = Draft { config: (*config).clone(), host: draft.host.clone() };
        prop_assert_eq!(told::world(&read), told::world(&draft));
        let mut world = World::new(world::config(world::host(), vec![], vec![]), &[]);
        world.become_draft(&draft);
        let facts = world.facts();
        let mut probes = Probes::new(&draft.config, &facts, seed);
        for _ in 0..50 {
            let packet = probes.probe();
            let judge = |draft: &Draft| reference::judge(&draft.config, &facts, &packet, true);
            prop_assert_eq!(judge(&read), judge(&draft), "{}", told::world(&draft));
            let line = told::packet(&facts, &packet);
            prop_assert_eq!(told::parse_packet(&facts, &line), packet, "{}", line);
        }
    }
}
