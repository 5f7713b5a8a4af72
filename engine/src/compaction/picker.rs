//! temporary
#[derive(Clone,Debug)] pub struct Candidate{pub id:u64,pub bytes:u64,pub smallest:Vec<u8>,pub largest:Vec<u8>}
#[derive(Clone,Debug,Default)] pub struct PickerOptions{}
#[derive(Clone,Debug,PartialEq)] pub enum Choice{Nothing,Move{table:u64,to:u8},Merge{inputs:Vec<u64>,from_level:u8,to_level:u8,is_bottom:bool}}
pub fn pick(_l:&[Vec<Candidate>],_o:&PickerOptions)->Choice{Choice::Nothing}
