// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptd remembers of ended tasks, also after its restart; and the directories of the supervisors' sockets.
#include <catch2/catch_test_macros.hpp>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <fstream>
#include <string>

#include "common/fd.h"
#include "daemon/task_ends.h"
#include "daemon/run_directory.h"

using namespace sckpt;

namespace {

class Folder {
   public:
    Folder() {
        char name[] = "/tmp/sckpt-ranks-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path_ = name;
    }
    ~Folder() { (void)remove_tree(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }
    const std::string& path() const { return path_; }

   private:
    std::string path_;
};

TaskEnd end_of(std::uint32_t job, std::uint32_t key, std::uint32_t rank, int status) { return {1000, job, key, rank, 4, 8, 0, 0, status}; }

}  // namespace

TEST_CASE("how a task ended is known until its job is forgotten, also to the next sckptd", "[task_ends]") {
    const Folder folder;
    {
        TaskEnds ends(folder / "ended");
        ends.add(end_of(7, 0, 3, 256));
        ends.add(end_of(7, 0, 4, 9));
        ends.add(end_of(8, 0x80000004, 0, 0));
        CHECK(ends.find(1000, 7, 0, 0, 3) == 256);
        CHECK(ends.find(1001, 7, 0, 0, 3) == std::nullopt);
        CHECK(ends.find(1000, 7, 0, 1, 3) == std::nullopt);
    }
    TaskEnds ends(folder / "ended");
    REQUIRE(ends.all().size() == 3);
    CHECK(ends.find(1000, 8, 0, 0x80000004, 0) == 0);
    const TaskEnd task = ends.all().front();
    CHECK(task.step_id == 4);
    CHECK(task.tasks == 8);
    ends.forget_job(7);
    CHECK(ends.find(1000, 7, 0, 0, 4) == std::nullopt);
    CHECK(TaskEnds(folder / "ended").all().size() == 1);
}

TEST_CASE("a task that runs again, and a later run of its job, make earlier ends void", "[task_ends]") {
    const Folder folder;
    TaskEnds ends(folder / "ended");
    ends.add(end_of(7, 0, 3, 256));
    ends.add(end_of(7, 1, 0, 0));
    ends.begins(end_of(7, 0, 3, 0));
    CHECK(ends.find(1000, 7, 0, 0, 3) == std::nullopt);
    CHECK(ends.find(1000, 7, 0, 1, 0) == 0);
    TaskEnd later = end_of(7, 5, 5, 0);
    later.restart_count = 1;
    ends.add(later);
    ends.forget_runs_before(1001, 7, 1);  // another user's word
    CHECK(ends.all().size() == 2);
    ends.forget_runs_before(1000, 7, 1);
    CHECK(ends.all().size() == 1);
    CHECK(ends.find(1000, 7, 1, 5, 5) == 0);
    CHECK(ends.find(1000, 7, 2, 5, 5) == std::nullopt);  // a later run
}

TEST_CASE("a line that is cut off or damaged is left out", "[task_ends]") {
    const std::string line = to_line(end_of(7, 0, 3, 139));
    CHECK(parse_task_end(line)->wait_status == 139);
    for (std::size_t length = 0; length + 2 < line.size(); ++length) CHECK_FALSE(parse_task_end(line.substr(0, length)));
    CHECK_FALSE(parse_task_end("1000 x 0 3 4 8 0 0 139 ."));
    const Folder folder;
    std::ofstream(folder / "ended") << line << "1000 7 0 4 4 8 0";
    CHECK(TaskEnds(folder / "ended").all().size() == 1);
}

TEST_CASE("a user's directory for sockets is his alone, and no link is followed", "[run_directory]") {
    if (::geteuid() != 0) SKIP("needs root");
    const Folder folder;
    REQUIRE(make_run_directory(folder.path(), 1000));
    REQUIRE(make_run_directory(folder.path(), 1000));
    struct stat status{};
    REQUIRE(::stat((folder / "run/1000").c_str(), &status) == 0);
    CHECK(status.st_uid == 1000);
    CHECK((status.st_mode & 07777) == 0700);
    REQUIRE(::stat((folder / "run").c_str(), &status) == 0);
    CHECK(status.st_uid == 0);
    CHECK((status.st_mode & 07777) == 0755);
    REQUIRE(::symlink("/tmp", (folder / "run/1001").c_str()) == 0);
    CHECK_FALSE(make_run_directory(folder.path(), 1001));
}
