// SPDX-License-Identifier: GPL-3.0-or-later
//
// A store with its catalogue in one process: what drains, restores and the keeper of sckptctld do, one after another, on a file
// system whose calls fail and whose power fails, with a controller that can be killed before any change of its catalogue.
// Images are small and made from their number, so that whatever is read back can be compared.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "image_store/catalogue.h"
#include "image_store/faulty_file_system.h"
#include "image_store/memory_file_system.h"
#include "image_store/store.h"

namespace sckpt::test {

class StoreModel {
   public:
    using Numbers = std::set<std::uint32_t>;
    static constexpr std::int64_t kNow = 1'700'000'000;

    StoreModel();
    StoreModel(const StoreModel&) = delete;
    StoreModel& operator=(const StoreModel&) = delete;
    ~StoreModel();

    MemoryFileSystem disk;
    FaultyFileSystem files{disk};  // what everybody uses who is not told otherwise
    RowId job = 0;
    Numbers promised;              // what the catalogue has said to be complete, and nobody has removed since
    Numbers damaged;               // of those: whose bytes were changed by the disk

    // The controller is killed before its N-th change of the catalogue from now on; 0: not.
    void kill_before(std::uint64_t change);
    std::uint64_t changes() const { return changes_; }
    bool killed() const { return kill_at_ != 0 && changes_ >= kill_at_; }

    // A whole life: checkpoints with bases, removal, compaction, a restore, a damaged image put aside, a lost catalogue. What
    // fails is tried once more; an error is that of a crash.
    Result<> live();

    // Its parts; `files` is who does it.
    Result<CheckpointRow> capture();
    Result<> drain(RowId checkpoint, FileSystem& files);
    Result<> restore(std::uint32_t number, FileSystem& files);
    Result<> remove_but(const Numbers& kept);        // rows; what is refused stays
    Result<> collect(FileSystem& files);             // garbage
    Result<> compact(FileSystem& files);
    Result<> sweep(FileSystem& files);               // what nobody names becomes garbage
    Result<> put_bad_aside(FileSystem& files);
    Result<> rebuild(FileSystem& files);             // of a lost catalogue
    Result<CheckpointRow> row(std::uint32_t number) const;

    // After a crash: what is called complete is whole, in this catalogue and in one made from the store alone, and nothing is
    // missing.
    void expect_nothing_lost();
    // What a daemon does when it starts, then one round of the keeper.
    Result<> recover(bool node_lost);
    void expect_no_file_but_named();
    // A further checkpoint, then the end of the job: nothing is left in the store.
    void expect_space_given_back();

   private:
    template <class Call>
    auto change(Call call) -> decltype(call()) {
        ++changes_;
        if (killed()) return fail(Errc::unavailable, "the controller was killed");
        return call();
    }
    Result<> step(const std::function<Result<>()>& body);
    Result<> take_checkpoint();
    Result<> find_damage(std::uint32_t number);
    Result<> import_images(Catalogue& into, FileSystem& from);
    Numbers whole_in(const Catalogue& catalogue, std::set<std::string>& manifests);

    Catalogue catalogue_;
    bool lost_ = false;            // it is another one, and not rebuilt yet
    std::uint64_t changes_ = 0, kill_at_ = 0;
    std::int64_t now_ = kNow;
};

}  // namespace sckpt::test
