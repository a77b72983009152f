// I9: what a server makes of a disk that was cut off at any moment, or has a flipped bit. Done on
// copies of the disk, so that the run itself goes on unharmed.
#pragma once

#include "journal/faulty_file_system.h"
#include "sim/checker.h"
#include "sim/dice.h"
#include "sim/history.h"
#include "sim/plan.h"

namespace waystation::sim {

// The machine loses power now. Any part of what isn't synced may be left; a restart must find all
// that is durable, nothing that was never written, and the same state as the records give.
void i9_power_cut(const journal::FaultyFileSystem& disk, const Checker& checker, const Plan& plan,
                  History& history, Dice& dice);

// A bit flips somewhere in a file of a server that is down. A restart must refuse, or find all but
// the last group (the stated limit); and whoever reads gets what was written or an error.
void i9_bit_flip(const journal::FaultyFileSystem& disk, const Checker& checker, const Plan& plan,
                 History& history, Dice& dice);

}  // namespace waystation::sim
