//! Whether an ADD and a DEL cost more on a node that has many pods.

use weft_e2e::Result;

use crate::burst::parallel;
use crate::contestant::{Contestant, Guest};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::times::Times;
use crate::turns::once;

/// How many pods stand on a node.
const SIZES: [u16; 4] = [1, 10, 100, 1000];
/// How often ADD and DEL are measured at a size.
const PROBES: u16 = 10;
/// How many of those that are to stand are attached at a time.
const WIDTH: usize = 8;

/// What a contestant took, beside each number of pods.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) name: String,
    pub(crate) at: Vec<(u16, Times)>,
}

/// A node that fills up, and those who are measured on it: the bare program stands beside Weft, to show what of the growth
/// is the kernel's.
struct Crowd {
    host: Contestant,
    beside: Option<Contestant>,
    most: u16,
    standing: Vec<Guest>,
}

pub(crate) fn measure(
    reference: &Reference,
    most: u16,
    most_of_reference: u16,
    progress: &Progress,
) -> Result<Vec<Growth>> {
    let mut crowds = vec![Crowd::of(Contestant::weft()?, most)?];
    for contestant in reference.contestants()? {
        crowds.push(Crowd { host: contestant, beside: None, most: most_of_reference, standing: Vec::new() });
    }
    let mut growths: Vec<_> = crowds.iter().map(Crowd::growths).collect();
    for size in SIZES {
        for (crowd, growths) in crowds.iter_mut().zip(&mut growths) {
            if size <= crowd.most {
                progress.show(
                    &format!("{size} standing pods: {}", crowd.host.name),
                    size.into(),
                    most.into(),
                );
                crowd.grow_to(size)?;
                crowd.probe(size, growths)?;
            }
        }
    }
    Ok(growths.into_iter().flatten().collect())
}

impl Crowd {
    fn of(host: Contestant, most: u16) -> Result<Self> {
        Ok(Self { beside: Some(host.bare_beside()?), host, most, standing: Vec::new() })
    }

    fn contestants(&self) -> impl Iterator<Item = &Contestant> {
        self.beside.iter().chain([&self.host])
    }

    fn growths(&self) -> Vec<Growth> {
        self.contestants().map(|who| Growth { name: who.name.clone(), at: Vec::new() }).collect()
    }

    /// One stands since the contestant has its node.
    fn grow_to(&mut self, size: u16) -> Result<()> {
        let have = u16::try_from(self.standing.len()).unwrap_or(u16::MAX);
        let numbers: Vec<_> = (have..size.saturating_sub(1)).collect();
        let stand = |number: &u16| {
            let guest = self.host.guest(*number)?;
            self.host.add(&guest).map(|_| guest)
        };
        let come: Vec<_> = parallel(&numbers, WIDTH, stand).into_iter().collect::<Result<_>>()?;
        self.standing.extend(come);
        Ok(())
    }

    /// Numbers far above those that stand: the bare program's are its addresses, and Weft gives the next ones.
    fn probe(&self, size: u16, growths: &mut [Growth]) -> Result<()> {
        const FAR: u16 = 3000;
        let mut all: Vec<_> = self.contestants().map(|_| Times::default()).collect();
        let (mut numbers, mut gone) = (FAR.., Vec::new());
        for probe in 0..PROBES {
            let mut order: Vec<_> = self.contestants().zip(&mut all).collect();
            let first = usize::from(probe) % order.len().max(1);
            order.rotate_left(first);
            for ((contestant, times), number) in order.into_iter().zip(&mut numbers) {
                gone.push(once(contestant, number, times)?);
            }
        }
        growths.iter_mut().zip(all).for_each(|(growth, times)| growth.at.push((size, times)));
        Ok(())
    }
}
