"""What a user's data hold, what they lack and where they contradict themselves."""
