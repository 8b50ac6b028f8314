// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a line of the log looks like, and that users' texts cannot make it look like two.
#include "common/log.h"

#include <catch2/catch_test_macros.hpp>
#include <fcntl.h>
#include <regex>
#include <thread>
#include <unistd.h>
#include <vector>

#include "common/fd.h"

using namespace sckpt;

namespace {

// Standard error as a file, for the life of this.
class CapturedStderr {
   public:
    CapturedStderr()
        : file_(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | O_APPEND, 0600)),
          before_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) {
        REQUIRE(file_);
        ::dup2(file_.get(), STDERR_FILENO);
    }
    ~CapturedStderr() {
        ::dup2(before_.get(), STDERR_FILENO);
        set_log_level(LogLevel::info);
    }
    std::string text() const {
        ::lseek(file_.get(), 0, SEEK_SET);
        return read_all(file_.get(), "standard error").value();
    }

   private:
    UniqueFd file_, before_;
};

}  // namespace

TEST_CASE("a line has a time, its level where it matters, and the text") {
    const CapturedStderr captured;
    log_info("job {} is {}", 12, "safe");
    log_error("disk full");
    const std::regex wanted(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} job 12 is safe\n[^ ]+ error: disk full\n)");
    CHECK(std::regex_match(captured.text(), wanted));
}

TEST_CASE("messages above the level are dropped") {
    const CapturedStderr captured;
    log_debug("not yet");
    CHECK(captured.text().empty());
    set_log_level(LogLevel::debug);
    log_debug("now");
    CHECK(captured.text().contains("debug: now"));
    set_log_level(LogLevel::error);
    log_warning("no more");
    CHECK_FALSE(captured.text().contains("no more"));
}

TEST_CASE("a text with line ends or escapes stays one harmless line") {
    const CapturedStderr captured;
    log_info("{}", "a\n<3>forged\x1b[2J");
    const std::string text = captured.text();
    CHECK(text.find('\n') == text.size() - 1);
    CHECK_FALSE(text.contains('\x1b'));
}

TEST_CASE("lines of several threads do not mix") {
    std::string text;
    {
        const CapturedStderr captured;
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 4; ++thread)
            threads.emplace_back([] { for (int i = 0; i < 200; ++i) log_info("{}", std::string(300, 'x')); });
        threads.clear();
        text = captured.text();
    }
    const std::string ending = " " + std::string(300, 'x');
    std::size_t lines = 0, whole = 0;
    for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1, ++lines)
        whole += text.substr(begin, end - begin).ends_with(ending) && end - begin < 340;
    CHECK(lines == 800);
    CHECK(whole == 800);
}
