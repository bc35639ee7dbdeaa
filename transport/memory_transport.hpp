// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include <spillway/transport/http.hpp>

namespace spillway::transport {

/// A transport that keeps what it is given and answers as a test says: no network, no waiting.
/// Responses are taken from a script, one a request, then from `answer`, which says 200 "{}" unless
/// it is set.
class MemoryTransport final : public HttpTransport {
 public:
  using Answer = std::function<HttpResponse(const HttpRequest&)>;

  static HttpResponse answered(int status, std::string body = "{}",
                               std::vector<HttpHeader> headers = {}) {
    return {HttpOutcome::answered, status, std::move(headers), std::move(body), {}};
  }
  static HttpResponse failed(HttpOutcome outcome) {
    return {outcome, 0, {}, {}, "scripted failure"};
  }

  /// Answers the next request that no other scripted response is waiting for.
  void script(HttpResponse response) { script_.push_back(std::move(response)); }
  void set_answer(Answer answer) { answer_ = std::move(answer); }
  /// Keep completions back until release(): requests stay under way.
  void hold() { held_ = true; }
  void release() { held_ = false; }

  /// What was sent so far.
  const std::vector<HttpRequest>& requests() const noexcept { return requests_; }
  void forget_requests() { requests_.clear(); }

  void start(std::uint64_t id, HttpRequest request,
             std::chrono::milliseconds /*timeout*/) override {
    HttpResponse response;
    if (!script_.empty()) {
      response = std::move(script_.front());
      script_.pop_front();
    } else {
      response = answer_ ? answer_(request) : answered(200);
    }
    requests_.push_back(std::move(request));
    completions_.push_back({id, std::move(response)});
  }
  std::vector<HttpCompletion> poll(std::chrono::milliseconds /*wait*/) override {
    return held_ ? std::vector<HttpCompletion>{} : std::exchange(completions_, {});
  }
  void wake() noexcept override {}
  void cancel_all() noexcept override { completions_.clear(); }

 private:
  bool held_ = false;
  Answer answer_;
  std::deque<HttpResponse> script_;
  std::vector<HttpRequest> requests_;
  std::vector<HttpCompletion> completions_;
};

}  // namespace spillway::transport
