#include "app/doctor.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

namespace waystation::app {
namespace {

std::string with_unit(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  char text[32];
  std::snprintf(text, sizeof text, bytes < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes,
                units[unit]);
  return text;
}

std::string fixed(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

const char* word_of(Level level) {
  return level == Level::kGood ? "good" : level == Level::kNote ? "note" : "BAD";
}

}  // namespace

Finding judge_cpu(const std::vector<std::string>& features,
                  const std::vector<std::string>& needed) {
  std::vector<std::string> missing;
  for (const std::string& feature : needed) {
    if (std::ranges::count(features, feature) == 0) missing.push_back(feature);
  }
  if (!missing.empty()) {
    return {"cpu", Level::kBad,
            "this CPU lacks " + joined(missing) + ", which the engine was compiled for",
            "build on this machine: make clean, then make build"};
  }
  const auto has = [&](const char* name) { return std::ranges::count(needed, name) > 0; };
  if (!has("avx2") && !has("asimd")) {
    return {"cpu", Level::kNote, "the engine uses no vector instructions (" + joined(needed) + ")",
            "models run several times slower than on a CPU with AVX2 or NEON; build where it runs"};
  }
  return {"cpu", Level::kGood, "the engine uses " + joined(needed)};
}

Finding judge_amx(Amx amx, bool engine_uses_it) {
  if (amx == Amx::kAbsent) return {"amx", Level::kGood, "not announced, not used"};
  if (amx == Amx::kWorks) {
    return {"amx", Level::kGood, engine_uses_it ? "works, and is used" : "works, but isn't used"};
  }
  if (!engine_uses_it) {
    return {"amx", Level::kGood,
            "announced but illegal to execute here; the engine doesn't use it"};
  }
  return {"amx", Level::kBad, "announced but illegal to execute here, and the engine uses it",
          "build the engine without it: -mno-amx-tile -mno-amx-int8 -mno-amx-bf16 "
          "(tools/build_llama.sh does)"};
}

Finding judge_memory(const std::vector<ModelNeed>& models, std::uint64_t available_bytes) {
  std::uint64_t files = 0;
  std::uint64_t caches = 0;
  for (const ModelNeed& model : models) {
    files += model.file_bytes;  // mapped: workers of one model share its pages
    caches += model.cache_bytes * model.workers;
  }
  const std::uint64_t base = 256u << 20;  // the server, and what workers need beside the model
  const std::uint64_t wanted = files + caches + base;
  std::string what = with_unit(static_cast<double>(available_bytes)) + " available";
  if (!models.empty()) {
    what += "; models " + with_unit(static_cast<double>(files)) + ", full contexts " +
            with_unit(static_cast<double>(caches));
  }
  if (files + base > available_bytes) {
    return {"memory", Level::kBad, what,
            models.empty()
                ? "free some memory: the server alone wants about 256 MiB"
                : "use a smaller model or a smaller quantization, or give it more memory"};
  }
  if (wanted > available_bytes) {
    return {"memory", Level::kBad, what,
            "give fewer --slots, a smaller --context, or fewer --workers"};
  }
  return {"memory", Level::kGood, what};
}

Finding judge_sync(double median_ms) {
  const std::string what = "a sync takes " + fixed(median_ms, median_ms < 10 ? 2 : 0) +
                           " ms: a stream shows at most " +
                           fixed(1000.0 / std::max(median_ms, 0.001), 0) + " steps a second";
  const std::string mend =
      "put --data on a local SSD; or --durability os, where a crash of the machine (not of the "
      "server) may lose the last seconds";
  if (median_ms > 50) return {"disk", Level::kBad, what, mend};
  if (median_ms > 10) return {"disk", Level::kNote, what, mend};
  return {"disk", Level::kGood, what};
}

Finding judge_room(const std::string& folder, std::uint64_t free_bytes,
                   std::uint64_t wanted_bytes) {
  const std::string what = with_unit(static_cast<double>(free_bytes)) + " free in " + folder +
                           "; the journal may take " + with_unit(static_cast<double>(wanted_bytes));
  if (free_bytes < (256u << 20)) {
    return {"room", Level::kBad, what, "free some room: a full disk stops acceptance"};
  }
  if (free_bytes < wanted_bytes) {
    return {"room", Level::kNote, what, "free some room, or set a smaller --journal-bytes-max"};
  }
  return {"room", Level::kGood, what};
}

Finding judge_open_files(std::uint64_t limit, std::uint64_t hard_limit, std::uint64_t connections) {
  // Segments, sockets of workers, the store.
  const std::uint64_t wanted = connections + 256;
  const std::string what = "at most " + std::to_string(limit) + " open files; " +
                           std::to_string(connections) + " connections are allowed";
  const std::string mend =
      (hard_limit >= wanted ? "ulimit -n " + std::to_string(wanted)
                            : "raise the hard limit (LimitNOFILE= in systemd)") +
      ", or set a smaller --connections-max";
  if (limit < 256) return {"open files", Level::kBad, what, mend};
  if (limit < wanted) return {"open files", Level::kNote, what, mend};
  return {"open files", Level::kGood, what};
}

Finding judge_clock(TimeMs now_ms, TimeMs newest_ms, bool synchronised) {
  constexpr TimeMs kStart2025Ms = 1'735'689'600'000;
  const std::string mend =
      "set the clock (timedatectl set-ntp true): expiry and retention follow it";
  if (now_ms < kStart2025Ms) return {"clock", Level::kBad, "it stands before 2025", mend};
  if (newest_ms > now_ms + 1000) {
    return {"clock", Level::kBad,
            "it stands " + fixed(static_cast<double>(newest_ms - now_ms) / 1000, 0) +
                " s before the newest record in the journal: it went back",
            mend + "; until it has caught up, time stands still for the server"};
  }
  if (!synchronised) {
    return {"clock", Level::kNote, "no time service says that it is right", mend};
  }
  return {"clock", Level::kGood, "set by a time service"};
}

bool all_well(const std::vector<Finding>& findings) {
  return std::ranges::none_of(findings, [](const Finding& f) { return f.level == Level::kBad; });
}

std::string as_text(const std::vector<Finding>& findings) {
  std::string out;
  std::size_t width = 0;
  for (const Finding& finding : findings) width = std::max(width, finding.name.size());
  for (const Finding& finding : findings) {
    out += std::string(word_of(finding.level)) + (finding.level == Level::kBad ? "   " : "  ") +
           finding.name + std::string(width + 2 - finding.name.size(), ' ') + finding.what + "\n";
    if (!finding.mend.empty()) out += std::string(width + 8, ' ') + "-> " + finding.mend + "\n";
  }
  const auto bad = std::ranges::count(findings, Level::kBad, &Finding::level);
  const auto notes = std::ranges::count(findings, Level::kNote, &Finding::level);
  out += bad == 0 ? "verdict: a server can run here"
                  : "verdict: " + std::to_string(bad) + " to mend before a server can run well";
  if (notes > 0) out += ", " + std::to_string(notes) + " to think about";
  return out + "\n";
}

std::string as_json(const std::vector<Finding>& findings) {
  boost::json::array list;
  for (const Finding& finding : findings) {
    list.push_back({{"name", finding.name},
                    {"level", finding.level == Level::kGood   ? "good"
                              : finding.level == Level::kNote ? "note"
                                                              : "bad"},
                    {"what", finding.what},
                    {"mend", finding.mend.empty() ? boost::json::value(nullptr)
                                                  : boost::json::value(finding.mend)}});
  }
  return boost::json::serialize(
             boost::json::object{{"well", all_well(findings)}, {"findings", std::move(list)}}) +
         "\n";
}

}  // namespace waystation::app
