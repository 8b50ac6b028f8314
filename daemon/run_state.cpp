// SPDX-License-Identifier: GPL-3.0-or-later
//
// By hand: sckpt-run starts in front of every task, and carries no JSON library.
#include "daemon/run_state.h"

#include <charconv>
#include <format>

namespace sckpt {

namespace {

using Step = RunState::Step;

std::unexpected<Error> bad(std::string_view line) {
    return fail(Errc::corrupt, std::format("the state of sckpt-run has a bad line: {}", line.substr(0, 100)));
}

// The words of a line, in turn.
class Words {
   public:
    explicit Words(std::string_view line) : rest_(line) {}
    std::string_view word() {
        const std::size_t end = rest_.find(' ');
        const std::string_view found = rest_.substr(0, end);
        rest_ = end == rest_.npos ? std::string_view() : rest_.substr(end + 1);
        return found;
    }
    template <class T>
    bool number(T& out) {
        const std::string_view text = word();
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
        return error == std::errc() && end == text.data() + text.size();
    }
    bool done() const { return rest_.empty(); }

   private:
    std::string_view rest_;
};

bool read_step(Words& words, RunState& state) {
    Step step;
    if (!words.number(step.key)) return false;
    const std::string_view phase = words.word();
    if (phase == "waiting") step.phase = Step::Phase::waiting;
    else if (phase == "running") step.phase = Step::Phase::running;
    else if (phase == "ended") step.phase = Step::Phase::ended;
    else return false;
    if (step.phase == Step::Phase::waiting && !words.number(step.srun)) return false;
    if (step.phase == Step::Phase::running && !(words.number(step.step_id) && words.number(step.tasks) && words.number(step.srun)))
        return false;
    if (step.phase == Step::Phase::ended && !words.number(step.wait_status)) return false;
    if (!state.steps.empty() && state.steps.back().key >= step.key) return false;
    state.steps.push_back(step);
    return true;
}

bool read_unreplayable(Words& words, RunState& state) {
    std::uint32_t key = 0;
    if (!words.number(key) || state.steps.empty() || state.steps.back().key != key) return false;
    state.steps.back().unreplayable = true;
    return true;
}

bool read_line(std::string_view line, RunState& state) {
    Words words(line);
    const std::string_view what = words.word();
    bool good = false;
    if (what == "next") good = words.number(state.next_key);
    else if (what == "step") good = read_step(words, state);
    else if (what == "unreplayable") good = read_unreplayable(words, state);
    else if (what == "stdin") good = words.number(state.stdin_consumed);
    return good && words.done();
}

}  // namespace

std::string to_text(const RunState& state) {
    std::string text = std::format("next {}\n", state.next_key);
    for (const Step& step : state.steps) {
        switch (step.phase) {
            case Step::Phase::waiting: text += std::format("step {} waiting {}\n", step.key, step.srun); break;
            case Step::Phase::running:
                text += std::format("step {} running {} {} {}\n", step.key, step.step_id, step.tasks, step.srun);
                break;
            case Step::Phase::ended: text += std::format("step {} ended {}\n", step.key, step.wait_status); break;
        }
        if (step.unreplayable) text += std::format("unreplayable {}\n", step.key);
    }
    return text + std::format("stdin {}\n", state.stdin_consumed);
}

Result<RunState> parse_run_state(std::string_view text) {
    RunState state;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        if (!read_line(line, state)) return bad(line);
    }
    return state;
}

}  // namespace sckpt
