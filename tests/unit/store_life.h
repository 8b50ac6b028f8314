// SPDX-License-Identifier: GPL-3.0-or-later
//
// A store with all that works on it in one process: the real keeper with its catalogue, and the real calls of a node with the real
// operations of sckpt-store in a thread in place of a process; on a store whose calls fail and whose power fails, with a controller
// that can be killed at any change of its catalogue. What is missing between them is the network alone.
// Images are small and made from their number, so that whatever is read back can be compared.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/store_keeper.h"
#include "image_store/catalogue.h"
#include "image_store/faulty_database.h"
#include "image_store/faulty_file_system.h"
#include "image_store/memory_file_system.h"
#include "tests/unit/image_store_tools.h"

namespace sckpt::test {

class StoreLife {
   public:
    using Numbers = std::set<std::uint32_t>;
    using Survival = MemoryFileSystem::Survival;

    // keep: complete checkpoints that the keeper leaves to the job; 0: the newest, and what somebody needs.
    explicit StoreLife(std::int64_t keep = 2);
    StoreLife(const StoreLife&) = delete;
    StoreLife& operator=(const StoreLife&) = delete;
    ~StoreLife();

    MemoryFileSystem disk;         // of the store
    FaultyFileSystem files{disk};  // the store, for every node that is not told otherwise
    FaultyDatabase database;       // the disk of the catalogue
    Numbers promised;              // complete, as the catalogue has said, and to be kept
    Numbers damaged;               // their bytes were changed by the disk

    // A whole life: checkpoints with bases, removal, compaction, a restore, a damaged image put aside, orphans, a lost catalogue.
    // What fails is tried once more; an error is that of a crash.
    Result<> live();

    // Its parts; `by` is the store as the node sees it that does this.
    Result<CheckpointRow> capture();
    Result<> drain(const CheckpointRow& row, FileSystem& by);
    Result<> restore(std::uint32_t number, FileSystem& by);
    Result<> round(bool whole);                      // of the keeper, days after the one before
    Result<> find_damage(std::uint32_t number);      // the disk has changed a byte of it; a check with repair
    Result<> lose_catalogue();                       // a new one is begun in its place

    bool crashed() const { return files.crashed() || database.crashed(); }
    // sckptctld is killed and starts again; what its disk had not got yet survives or not.
    void restart_controller(Survival survival, std::uint64_t seed = 0);

    // After a crash: what is called complete is whole, in this catalogue and in one made from the store alone; what was promised
    // is among it.
    void expect_nothing_lost();
    // What the daemons do when they start, then what the keeper does in the days after.
    Result<> recover(bool node_lost);
    void expect_no_file_but_named();
    // A further checkpoint, then the end of the job: nothing is left in the store.
    void expect_space_given_back();

   private:
    class Nodes;
    struct Controller;
    Result<> step(const std::function<Result<>()>& body);
    Result<> take_checkpoint();
    Result<CheckpointRow> row(std::uint32_t number) const;
    void completed(std::uint32_t number);
    void check_promises();
    Numbers whole_in(const Catalogue& catalogue, std::set<std::string>& manifests);
    Catalogue& catalogue() const;
    StoreKeeper& keeper() const;

    const TempDir directory_;  // the controller's, and of what is restored
    Config config_;
    int catalogues_ = 0;       // that were begun
    std::int64_t now_ = 1'700'000'000;
    RowId job_ = 0;
    std::unique_ptr<Nodes> nodes_;
    std::unique_ptr<Controller> controller_;
};

}  // namespace sckpt::test
