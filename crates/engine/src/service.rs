//! A model on a thread of its own, which any thread may give tasks.

use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::error::GenerateError;
use crate::gguf::Info;
use crate::model::{Model, Tokens};
use crate::request::{Answer, Control, Task};

/// Tasks that come while others are under way join them. Dropping it cancels what is left and waits for the
/// thread: one pass of the model at most.
pub struct Service {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    info: Info,
    tokens: Tokens,
    context: usize,
}

struct Job {
    task: Task,
    priority: u8,
    control: Control,
    reply: Reply,
}

type Reply = Box<dyn FnOnce(Result<Answer, GenerateError>) + Send>;

impl Service {
    pub fn start(model: Model) -> std::io::Result<Self> {
        let (info, tokens, context) = (model.info().clone(), model.tokens(), model.context());
        let (jobs, work) = mpsc::channel();
        let thread = std::thread::Builder::new().name("model".into()).spawn(move || serve(model, &work))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), info, tokens, context })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Calls `reply` on the model's thread when the task is done: it must not take long. Greater priorities go first. If
    /// the thread has died, `reply` is dropped without a call.
    pub fn submit(
        &self,
        task: Task,
        priority: u8,
        control: Control,
        reply: impl FnOnce(Result<Answer, GenerateError>) + Send + 'static,
    ) {
        if let Some(jobs) = &self.jobs {
            jobs.send(Job { task, priority, control, reply: Box::new(reply) }).ok();
        }
    }

    /// Whether the thread still runs; it ends early only by a defect.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Until nobody can send jobs any more.
fn serve(mut model: Model, jobs: &mpsc::Receiver<Job>) {
    let mut replies = Vec::new();
    loop {
        loop {
            let job = match model.is_idle() {
                true => jobs.recv().map_err(|_| mpsc::TryRecvError::Disconnected),
                false => jobs.try_recv(),
            };
            match job {
                Ok(Job { task, priority, control, reply }) => {
                    replies.push((model.submit(task, priority, control), reply));
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    replies.into_iter().for_each(|(_, reply)| reply(Err(GenerateError::Cancelled)));
                    return;
                }
            }
        }
        for (ticket, answer) in model.step() {
            if let Some(at) = replies.iter().position(|(waiting, _)| *waiting == ticket) {
                replies.swap_remove(at).1(answer);
            }
        }
    }
}
